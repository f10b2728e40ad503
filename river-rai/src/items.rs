//! Collections whose items can be read and set individually (Trickle paper, example 3).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};

use crate::data::RemoteSend;

/// A collection of items with keys. Implement it for your own types to use
/// [`Object::get_item`](crate::Object::get_item) and [`Object::set_item`](crate::Object::set_item) on them.
pub trait Items: Send + 'static {
    /// The type of keys.
    type Key: RemoteSend + Debug;
    /// The type of items.
    type Item: RemoteSend + Clone;

    /// Returns the item with that key, if there is one.
    fn item(&self, key: &Self::Key) -> Option<&Self::Item>;

    /// Sets the item. Returns `false` if there is no place for it.
    fn set_item(&mut self, key: Self::Key, item: Self::Item) -> bool;
}

impl<T: RemoteSend + Clone> Items for Vec<T> {
    type Key = usize;
    type Item = T;

    fn item(&self, index: &usize) -> Option<&T> {
        self.get(*index)
    }

    fn set_item(&mut self, index: usize, item: T) -> bool {
        self.get_mut(index).map(|place| *place = item).is_some()
    }
}

impl<T: RemoteSend + Clone> Items for VecDeque<T> {
    type Key = usize;
    type Item = T;

    fn item(&self, index: &usize) -> Option<&T> {
        self.get(*index)
    }

    fn set_item(&mut self, index: usize, item: T) -> bool {
        self.get_mut(index).map(|place| *place = item).is_some()
    }
}

impl<K, V, S> Items for HashMap<K, V, S>
where
    K: RemoteSend + Debug + Eq + Hash,
    V: RemoteSend + Clone,
    S: BuildHasher + Send + 'static,
{
    type Key = K;
    type Item = V;

    fn item(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn set_item(&mut self, key: K, item: V) -> bool {
        self.insert(key, item);
        true
    }
}

impl<K: RemoteSend + Debug + Ord, V: RemoteSend + Clone> Items for BTreeMap<K, V> {
    type Key = K;
    type Item = V;

    fn item(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn set_item(&mut self, key: K, item: V) -> bool {
        self.insert(key, item);
        true
    }
}
