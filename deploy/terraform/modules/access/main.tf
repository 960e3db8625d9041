# Who may do what, without any long-lived key: service accounts of the cluster and workflows of GitHub identify themselves by
# tokens of their own. AWS verifies these issuers by their certificates; the thumbprint is required by the API and not used.

locals {
  unused_thumbprint = "9e99a48a9960b14926bb7f3b02e22da2b0ab7280"
  github            = "token.actions.githubusercontent.com"

  accounts = {
    secrets = "system:serviceaccount:pmp:external-secrets"
    volumes = "system:serviceaccount:kube-system:ebs-csi-controller-sa"
  }
  # A release comes from a workflow in the environment `release`, a deployment from one in `production`. What reads images to look for
  # vulnerabilities is a program of others: its environment `scan` may change none.
  workflows = var.repository == "" ? {} : {
    release = "repo:${var.repository}:environment:release"
    scan    = "repo:${var.repository}:environment:scan"
    deploy  = "repo:${var.repository}:environment:production"
  }
  trusted = merge(
    { for name, subject in local.accounts : name => {
      provider = aws_iam_openid_connect_provider.cluster.arn
      issuer   = trimprefix(var.issuer, "https://")
      subject  = subject
    } },
    { for name, subject in local.workflows : name => {
      provider = aws_iam_openid_connect_provider.github[0].arn
      issuer   = local.github
      subject  = subject
    } },
  )
}

resource "aws_iam_openid_connect_provider" "cluster" {
  url             = var.issuer
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = [local.unused_thumbprint]
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.repository == "" ? 0 : 1

  url             = "https://${local.github}"
  client_id_list  = ["sts.amazonaws.com"]
  thumbprint_list = [local.unused_thumbprint]
}

data "aws_iam_policy_document" "assumed_by" {
  for_each = local.trusted

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [each.value.provider]
    }

    dynamic "condition" {
      for_each = { aud = "sts.amazonaws.com", sub = each.value.subject }

      content {
        test     = "StringEquals"
        variable = "${each.value.issuer}:${condition.key}"
        values   = [condition.value]
      }
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.trusted

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.assumed_by[each.key].json
}

data "aws_iam_policy_document" "secrets" {
  statement {
    actions   = ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"]
    resources = var.secrets
  }

  statement {
    actions   = ["kms:Decrypt"]
    resources = [var.key]
  }
}

resource "aws_iam_role_policy" "secrets" {
  name   = "read"
  role   = aws_iam_role.this["secrets"].id
  policy = data.aws_iam_policy_document.secrets.json
}

resource "aws_iam_role_policy_attachment" "volumes" {
  role       = aws_iam_role.this["volumes"].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
}

data "aws_iam_policy_document" "images" {
  for_each = local.workflows

  statement {
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }

  statement {
    actions = concat(
      ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
      each.key == "release" ? ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"] : [],
    )
    resources = var.repositories
  }

  dynamic "statement" {
    for_each = each.key == "deploy" ? [var.cluster] : []

    content {
      actions   = ["eks:DescribeCluster"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role_policy" "workflow" {
  for_each = local.workflows

  name   = each.key
  role   = aws_iam_role.this[each.key].id
  policy = data.aws_iam_policy_document.images[each.key].json
}
