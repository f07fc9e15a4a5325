mock_provider "aws" {}

variables {
  name          = "mlplatform-test"
  cluster_name  = "mlplatform-test"
  node_role_arn = "arn:aws:iam::111122223333:role/node"
  subnet_ids    = ["subnet-a"]
  tags          = { Project = "mlplatform" }
}

run "no_node_runs_while_nobody_asks" {
  command = plan

  assert {
    condition     = aws_eks_node_group.this.scaling_config[0].desired_size == 0 && aws_eks_node_group.this.scaling_config[0].min_size == 0
    error_message = "The group must begin with no nodes."
  }
}

run "only_pods_that_ask_for_a_gpu_are_placed" {
  command = plan

  assert {
    condition     = one([for taint in aws_eks_node_group.this.taint : "${taint.key}:${taint.effect}"]) == "nvidia.com/gpu:NO_SCHEDULE"
    error_message = "The taint is missing."
  }
  assert {
    condition     = output.tolerations[0].key == "nvidia.com/gpu"
    error_message = "Pods are not told what to tolerate."
  }
}

run "spot_is_a_choice" {
  command = plan
  variables {
    spot = true
  }

  assert {
    condition     = aws_eks_node_group.this.capacity_type == "SPOT"
    error_message = "Spot capacity was asked for."
  }
}

run "machines_without_a_gpu_are_refused" {
  command = plan
  variables {
    instance_types = ["m7i.xlarge"]
  }
  expect_failures = [var.instance_types]
}

run "a_bill_without_an_end_is_refused" {
  command = plan
  variables {
    max_size = 500
  }
  expect_failures = [var.max_size]
}
