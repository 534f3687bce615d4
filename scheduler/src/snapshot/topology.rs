//! Which nodes share a value of a label, as numbers: one column for each label that a rule has asked for.

use std::collections::HashMap;
use std::sync::Arc;

use super::NodeState;

/// The domain of a node that does not bear the label.
pub const NONE: u32 = u32::MAX;

/// The values of one label.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// By the places of nodes: the number of the label's value, or [`NONE`].
    pub of_node: Arc<Vec<u32>>,
    /// One more than the greatest number.
    pub domains: usize,
}

#[derive(Debug, Default)]
struct Numbered {
    column: Column,
    numbers: HashMap<String, u32>,
}

impl Numbered {
    fn number(&mut self, value: Option<&str>) -> u32 {
        let Some(value) = value else { return NONE };
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = u32::try_from(self.numbers.len()).unwrap_or(NONE - 1);
        self.numbers.insert(value.to_owned(), number);
        self.column.domains = self.numbers.len();
        number
    }

    fn of(key: &str, nodes: &[NodeState]) -> Self {
        let mut new = Self::default();
        let numbers = nodes.iter().map(|node| new.number(node.label(key))).collect();
        new.column.of_node = Arc::new(numbers);
        new
    }
}

/// All columns.
#[derive(Debug, Default)]
pub struct Topology(HashMap<Arc<str>, Numbered>);

impl Topology {
    /// The column of a label, which is made when it is first asked for.
    pub fn column(&mut self, key: &Arc<str>, nodes: &[NodeState]) -> Column {
        if let Some(known) = self.0.get(key) {
            return known.column.clone();
        }
        let new = Numbered::of(key, nodes);
        let column = new.column.clone();
        self.0.insert(key.clone(), new);
        column
    }

    /// A node came or has other labels.
    pub fn set(&mut self, node: &NodeState) {
        let at = node.place();
        for (key, numbered) in &mut self.0 {
            let number = numbered.number(node.label(key));
            let of_node = Arc::make_mut(&mut numbered.column.of_node);
            if at == of_node.len() {
                of_node.push(number);
            } else {
                of_node[at] = number;
            }
        }
    }

    /// A node is gone and the last one has its place. Values that are long gone are forgotten.
    pub fn swap_remove(&mut self, at: usize, nodes: &[NodeState]) {
        for (key, numbered) in &mut self.0 {
            Arc::make_mut(&mut numbered.column.of_node).swap_remove(at);
            if numbered.numbers.len() > 2 * nodes.len() + 64 {
                *numbered = Numbered::of(key, nodes);
            }
        }
    }
}
