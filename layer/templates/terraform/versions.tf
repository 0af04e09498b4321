terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80" # knows python3.13 and a function's logging_config
    }
  }
}
