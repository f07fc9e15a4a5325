"""The platform in a cluster: its images, the chart's release, and the commands around them."""
