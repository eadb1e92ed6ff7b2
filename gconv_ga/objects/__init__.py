"""Objects: a class map cut into things that can be counted, measured, written and scored.

Where neighbouring nuclei touch, a class map holds one region. `decode` cuts it into objects by rules that no
orientation can tell apart: of a rotated or reflected class map it finds the rotated or reflected objects, to the last
pixel. Needs the extra ``train``.

Names: `decode`, `Decoder`, `Objects`, `FLOW_HALO` (from classes to objects), `object_targets` (the way back, for
training); `object_table`, `write_table`, `table_rows` (a row for each object); `outlines`, `geojson_features`,
`write_labels`, `write_geojson`, `write_rois`, `write_outlines`, `write_coco` (files for other programs);
`match_objects`, `ObjectScores`, `object_scores` (against true objects), `ObjectChanges`, `changed_objects` (against
those of the rotated image).

Example:
    >>> import torch
    >>> from gconv_ga.objects import decode
    >>> y, x = torch.meshgrid(torch.arange(30), torch.arange(50), indexing="ij")
    >>> touching = ((y - 15) ** 2 + (x - 15) ** 2 < 100) | ((y - 15) ** 2 + (x - 32) ** 2 < 100)
    >>> len(decode(touching.long()).classes)
    2
"""

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ._decode import decode
    from ._decoder import Decoder, Objects
    from ._follow import FLOW_HALO
    from ._scores import ObjectChanges, ObjectScores, changed_objects, match_objects, object_scores
    from ._table import object_table, table_rows, write_table
    from ._targets import object_targets
    from ._writers import (
        geojson_features,
        outlines,
        write_coco,
        write_geojson,
        write_labels,
        write_outlines,
        write_rois,
    )

__all__ = [
    "FLOW_HALO",
    "Decoder",
    "ObjectChanges",
    "ObjectScores",
    "Objects",
    "changed_objects",
    "decode",
    "geojson_features",
    "match_objects",
    "object_scores",
    "object_table",
    "object_targets",
    "outlines",
    "table_rows",
    "write_coco",
    "write_geojson",
    "write_labels",
    "write_outlines",
    "write_rois",
    "write_table",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "_decode": ["decode"],
        "_decoder": ["Decoder", "Objects"],
        "_follow": ["FLOW_HALO"],
        "_scores": ["ObjectChanges", "ObjectScores", "changed_objects", "match_objects", "object_scores"],
        "_table": ["object_table", "table_rows", "write_table"],
        "_targets": ["object_targets"],
        "_writers": [
            "geojson_features",
            "outlines",
            "write_coco",
            "write_geojson",
            "write_labels",
            "write_outlines",
            "write_rois",
        ],
    },
    extra="train",
)
