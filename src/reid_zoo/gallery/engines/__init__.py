"""The engines that keep a gallery, behind `base.GalleryStore`."""
