"""Files → documents → tokens → spans."""
