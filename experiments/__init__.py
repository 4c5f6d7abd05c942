"""The paper's tables as data, one file a table; a package so that they are installed with `motivation`."""
