"""Training and evaluation batches: of images that live on the device, and of images in files."""
