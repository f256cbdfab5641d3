"""A small dual encoder of images and captions, shipped: a score where nothing can be downloaded."""
