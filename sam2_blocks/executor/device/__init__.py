"""What any model on a device needs: precision, chunks of memory, graphs, transfers, fair turns."""
