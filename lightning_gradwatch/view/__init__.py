"""What the tab and the HTML report show: a recording in bins, read while it grows."""
