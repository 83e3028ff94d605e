//! `portolan dev`: the same YAML on one machine, without a cluster.
#![allow(dead_code)]

mod cluster_only;
mod environment;
mod files;
mod launch;
mod objects;
mod problem;
mod suggest;
mod watch;
mod yaml;
