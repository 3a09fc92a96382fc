"""Data sets, and images as a model takes them.

In reading order:

    files       look at files that may not be there
    formats     open an image file
    tiff        read the samples of a TIFF
    bands       read the channels of a file as they are stored
    colours     convert its values to 8 bits of RGB or grey
    pixels      read an image file as cv2.imread does
    letterbox   fit an image into the model's input
    images      read many images ahead, choose those for calibration
    outlines    masks in run-length form, the rectangle around corners
    sets        a data set in memory: splits, annotations, its hash
    label_lines  a line of a YOLO label file
    labels      YOLO label files
    yolo        data YAMLs
    coco        COCO JSON of instances and keypoints
    coco_shapes  the masks and keypoints of its annotations
    class_folders  folders of classes, for classifiers
    load        a data set of any kind
    matching    number the classes as a model does; compare the channels
    scenes      drawn pictures with exact boxes
    scene_labels  their labels for every task
    shapes      a data set of them, on disk
"""

from yqc.data.bands import Bands, Picture
from yqc.data.images import (
    CalibrationImages,
    KeptImages,
    Placed,
    Unreadable,
    list_unreadable,
    prefetch,
    read_images,
)
from yqc.data.letterbox import Letterboxed, centre_crop, fit_image, letterbox, to_float
from yqc.data.load import load_data
from yqc.data.matching import advise, fit_channels, fit_classes
from yqc.data.outlines import Mask, mask_pixels
from yqc.data.pixels import read_image, show_image
from yqc.data.sets import Annotations, Data, Labelling, Object, Split, annotate

__all__ = [
    "Annotations",
    "Bands",
    "CalibrationImages",
    "Data",
    "KeptImages",
    "Labelling",
    "Letterboxed",
    "Mask",
    "Object",
    "Picture",
    "Placed",
    "Split",
    "Unreadable",
    "advise",
    "annotate",
    "centre_crop",
    "fit_channels",
    "fit_classes",
    "fit_image",
    "letterbox",
    "list_unreadable",
    "load_data",
    "mask_pixels",
    "prefetch",
    "read_image",
    "read_images",
    "show_image",
    "to_float",
]
