"""Parts of a network in OpenVINO, converted in memory and kept on disk for the next process."""
