"""Pictures and their labels."""

from typing import TYPE_CHECKING

from spectrain._door import door

if TYPE_CHECKING:
    from spectrain.data._images import Images as Images
    from spectrain.data._images import read_images as read_images

__getattr__, __dir__ = door(__name__)
