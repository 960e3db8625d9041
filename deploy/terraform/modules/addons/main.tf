# What AWS runs in the cluster. The network's add-on enforces NetworkPolicies, without which the mesh's isolation is only text;
# CloudFormation knows its configuration, older providers don't.

resource "aws_cloudformation_stack" "addons" {
  name = "${var.name}-addons"

  template_body = jsonencode({
    Resources = {
      Network = {
        Type = "AWS::EKS::Addon"
        Properties = {
          AddonName           = "vpc-cni"
          ClusterName         = var.cluster
          ConfigurationValues = jsonencode({ enableNetworkPolicy = "true" })
          ResolveConflicts    = "OVERWRITE"
        }
      }
      Volumes = {
        Type = "AWS::EKS::Addon"
        Properties = {
          AddonName             = "aws-ebs-csi-driver"
          ClusterName           = var.cluster
          ServiceAccountRoleArn = var.volumes_role
          ResolveConflicts      = "OVERWRITE"
        }
      }
      Measurements = {
        Type = "AWS::EKS::Addon"
        Properties = {
          AddonName        = "metrics-server"
          ClusterName      = var.cluster
          ResolveConflicts = "OVERWRITE"
        }
      }
    }
  })
}
