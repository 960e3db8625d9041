terraform {
  required_version = ">= 1.3"

  required_providers {
    # With 3.39 the configuration is validated. `terraform init` writes .terraform.lock.hcl, which pins a version: keep that file.
    aws = {
      source  = "hashicorp/aws"
      version = ">= 3.39"
    }
  }

  # terraform init -backend-config=backend.hcl: a bucket with versions and encryption, since the state has passwords.
  backend "s3" {}
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}
