output "name" {
  description = "Of the cluster."
  value       = aws_eks_cluster.this.name
}

output "version" {
  description = "Kubernetes version."
  value       = aws_eks_cluster.this.version
}

output "endpoint" {
  description = "Address of the API server."
  value       = aws_eks_cluster.this.endpoint
}

output "security_group_id" {
  description = "Of all nodes: databases let it in."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}

output "node_role_arn" {
  description = "Role of all nodes."
  value       = aws_iam_role.node.arn

  # Whoever starts nodes with it waits for its rights and for the network of the pods.
  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.before_nodes]
}
