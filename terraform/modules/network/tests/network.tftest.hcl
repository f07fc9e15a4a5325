mock_provider "aws" {}

variables {
  name         = "mlplatform-test"
  region       = "us-east-1"
  zones        = ["us-east-1a", "us-east-1b", "us-east-1c"]
  nat_per_zone = false
}

run "one_gateway_serves_all_zones" {
  command = plan

  assert {
    condition     = length(aws_nat_gateway.this) == 1
    error_message = "One NAT gateway was asked for."
  }
  assert {
    condition     = length(aws_route.nat) == 3
    error_message = "Each zone needs a way to it."
  }
}

run "a_lost_zone_takes_no_other_along" {
  command = plan
  variables {
    nat_per_zone = true
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 3
    error_message = "Each zone needs a gateway of its own."
  }
}

run "subnets_do_not_overlap" {
  command = plan

  assert {
    condition     = aws_subnet.private["us-east-1c"].cidr_block == "10.20.64.0/19"
    error_message = "The third private subnet lies elsewhere."
  }
  assert {
    condition     = aws_subnet.data["us-east-1a"].cidr_block == "10.20.240.0/24"
    error_message = "The first subnet of databases lies elsewhere."
  }
}

run "no_machine_gets_a_public_address" {
  command = plan

  assert {
    condition     = alltrue([for subnet in aws_subnet.public : !subnet.map_public_ip_on_launch])
    error_message = "Public subnets must not hand out addresses."
  }
}

run "two_zones_are_refused" {
  command = plan
  variables {
    zones = ["us-east-1a", "us-east-1b"]
  }
  expect_failures = [var.zones]
}

run "zones_of_another_region_are_refused" {
  command = plan
  variables {
    zones = ["us-east-1a", "us-east-1b", "eu-west-1a"]
  }
  expect_failures = [var.zones]
}

run "a_small_block_is_refused" {
  command = plan
  variables {
    cidr = "10.20.0.0/20"
  }
  expect_failures = [var.cidr]
}
