//! Rules of the kinds in `autoscaling/v2`, of which those in `autoscaling/v1` are views.

pub mod horizontal_pod_autoscaler;
