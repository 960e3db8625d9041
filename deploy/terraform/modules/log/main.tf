# Redis for the mesh alone: a node and its copy in another zone, over TLS. docs/terraform.md says what a failure of it costs.
# As a stack of CloudFormation, whose properties have one name in all versions of the provider.

resource "aws_security_group" "log" {
  name        = "${var.name}-log"
  description = "Redis, for the pods of the cluster"
  vpc_id      = var.network

  ingress {
    description     = "Redis"
    protocol        = "tcp"
    from_port       = 6379
    to_port         = 6379
    security_groups = [var.client]
  }
}

resource "aws_cloudformation_stack" "log" {
  name = "${var.name}-log"

  parameters = {
    Password = var.password
  }

  template_body = jsonencode({
    Parameters = {
      Password = { Type = "String", NoEcho = true }
    }
    Resources = {
      Subnets = {
        Type = "AWS::ElastiCache::SubnetGroup"
        Properties = {
          CacheSubnetGroupName = var.name
          Description          = "Private subnets"
          SubnetIds            = var.subnets
        }
      }
      Settings = {
        Type = "AWS::ElastiCache::ParameterGroup"
        Properties = {
          CacheParameterGroupFamily = "redis7"
          Description               = "Nothing is ever evicted"
          Properties                = { "maxmemory-policy" = "noeviction" }
        }
      }
      Log = {
        Type           = "AWS::ElastiCache::ReplicationGroup"
        DeletionPolicy = "Snapshot"
        Properties = {
          ReplicationGroupId          = "${var.name}-log"
          ReplicationGroupDescription = "The log of the mesh"
          Engine                      = "redis"
          EngineVersion               = "7.1"
          CacheNodeType               = var.node_type
          NumCacheClusters            = 2
          AutomaticFailoverEnabled    = true
          MultiAZEnabled              = true
          CacheParameterGroupName     = { Ref = "Settings" }
          CacheSubnetGroupName        = { Ref = "Subnets" }
          SecurityGroupIds            = [aws_security_group.log.id]
          Port                        = 6379
          AuthToken                   = { Ref = "Password" }
          TransitEncryptionEnabled    = true
          AtRestEncryptionEnabled     = true
          KmsKeyId                    = var.key
          SnapshotRetentionLimit      = var.backup_days
          SnapshotWindow              = "04:30-05:30"
          AutoMinorVersionUpgrade     = false
        }
      }
    }
    Outputs = {
      Address = { Value = { "Fn::GetAtt" = ["Log", "PrimaryEndPoint.Address"] } }
    }
  })
}
