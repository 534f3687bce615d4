//! What goes wrong, on whole clusters.

mod kill;
mod node;
