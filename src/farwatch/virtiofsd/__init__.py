"""A virtio-fs device as a daemon, with virtiofsd's command line."""
