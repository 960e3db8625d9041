"""What every service of the mesh shares. Knows no service and no word of the shop's business."""
