"""What files look like: pictures, rows of detections, COCO, YOLO, Labelme and plain JSON."""
