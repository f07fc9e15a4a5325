output "node_group_name" {
  description = "Of the group; `make infra-destroy` brings it to 0 first."
  value       = aws_eks_node_group.this.node_group_name
}

output "tolerations" {
  description = "What a pod needs to be placed on these nodes."
  value = [for taint in aws_eks_node_group.this.taint : {
    key      = taint.key
    operator = "Exists"
    effect   = "NoSchedule"
  }]
}

output "node_selector" {
  description = "Labels by which pods choose these nodes."
  value       = { "mlplatform.dev/nodes" = "gpu" }
}
