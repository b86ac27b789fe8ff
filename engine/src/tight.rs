//! Vectors that grow by a quarter: a table of a million entries should not keep room for a second million.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use alloc::vec::Vec;

/// Appends `value`; when the vector is full, room for a quarter more is made.
pub(crate) fn push<T>(vec: &mut Vec<T>, value: T) {
    make_room(vec);
    vec.push(value);
}

/// Inserts `value` at `index`; when the vector is full, room for a quarter more is made.
pub(crate) fn insert<T>(vec: &mut Vec<T>, index: usize, value: T) {
    make_room(vec);
    vec.insert(index, value);
}

/// Inserts a key into a sorted list that does not have it.
pub(crate) fn insert_sorted<K: Ord>(list: &mut Vec<K>, key: K) {
    if let Err(at) = list.binary_search(&key) {
        insert(list, at, key);
    }
}

/// Removes a key from a sorted list.
pub(crate) fn remove_sorted<K: Ord>(list: &mut Vec<K>, key: &K) {
    if let Ok(at) = list.binary_search(key) {
        list.remove(at);
        settle(list);
    }
}

/// Gives memory back once less than a quarter of it is in use, so that removing one by one stays cheap.
pub(crate) fn settle<T>(vec: &mut Vec<T>) {
    if vec.len() < vec.capacity() / 4 {
        vec.shrink_to(vec.len().saturating_add(vec.len() / 4));
    }
}

fn make_room<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 4).max(1));
    }
}
