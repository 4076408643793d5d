"""What files look like, between bytes or text and values; blocks and runs open and write them.

- pictures: `images` (`deep_colour`, `depth`), `mask_pictures`, `overlay`; videos: `video`, `clips`
- boxes to read: `json_boxes`, `coco_boxes`, `coco_results`, `yolo_lines`; `rows` is our own form
- prompts to read: `prompt_files`, `labelme_prompts`, `clip_prompts`, `clicks`
- annotations to write: `coco`, `yolo`, `labelme`, `youtube_vis`
- tables: `columns`, `parquet`; any value as JSON: `plain`
- `names` finds the picture that a file means, `fonts` a font that has the letters of a label

CONTRIBUTING.md says where a new one is added.
"""
