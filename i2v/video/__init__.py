"""Videos as sources of frames: folders of images, files, arrays, cameras."""
