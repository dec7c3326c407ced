"""A target and its configuration, changed step by step while guests have it.

::

    from nvmet_vdev import Target, config
    from nvmet_vdev.manager import Manager

    with Target() as target:
        manager = Manager(target)
        manager.apply(config.load("drives.toml").config)
        manager.namespace_add("nqn.2024-01.com.example:one", backend="ram:1G")
        manager.save("drives.toml")
"""

from nvmet_vdev.manager.manager import Manager

__all__ = ["Manager"]
