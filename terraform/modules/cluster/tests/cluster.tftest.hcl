mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }
}

variables {
  name               = "mlplatform-test"
  region             = "us-east-1"
  kubernetes_version = "1.34"
  subnet_ids         = ["subnet-a", "subnet-b", "subnet-c"]
  administrator_arns = { platform = "arn:aws:iam::111122223333:role/platform" }
  node_groups        = { platform = { instance_types = ["m7i.xlarge"], min_size = 2, max_size = 4 } }
  tags               = { Project = "mlplatform" }
}

run "the_api_server_is_private_unless_somebody_is_named" {
  command = plan

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "Without addresses the API server must not be public."
  }
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access
    error_message = "Nodes reach the API server from inside."
  }
}

run "all_logs_of_the_control_plane_are_kept" {
  command = plan

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5
    error_message = "EKS has five types of logs; audit is one of them."
  }
}

run "pods_cannot_ask_for_the_credentials_of_their_node" {
  command = plan

  assert {
    condition = alltrue([
      for template in aws_launch_template.node :
      template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1
    ])
    error_message = "IMDSv2 with hop limit 1 is missing."
  }
}

run "the_whole_internet_is_refused" {
  command = plan
  variables {
    public_access_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.public_access_cidrs]
}

run "spot_nodes_alone_are_refused" {
  command = plan
  variables {
    node_groups = { platform = { instance_types = ["m7i.xlarge"], min_size = 2, max_size = 4, spot = true } }
  }
  expect_failures = [var.node_groups]
}

run "a_maximum_below_the_minimum_is_refused" {
  command = plan
  variables {
    node_groups = { platform = { instance_types = ["m7i.xlarge"], min_size = 3, max_size = 2 } }
  }
  expect_failures = [var.node_groups]
}
