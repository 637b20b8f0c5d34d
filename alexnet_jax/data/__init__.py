"""Images: data sets, their preparation, batches, augmentation, statistics."""
