//! A journal that anything may have been done to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::queue::{Limits, Queue, Record};

fuzz_target!(|bytes: &[u8]| {
    let records: Vec<Record> =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let mut queue = Queue::new(Limits::default());
    let mut followed = Vec::new();
    for record in records {
        let before = queue.clone();
        match queue.apply(record.clone()) {
            Ok(()) => followed.push(record),
            Err(_) => assert_eq!(queue, before, "a record that was refused changed something"),
        }
    }
    assert_eq!(Queue::replay(Limits::default(), followed), Ok(queue.clone()));
    for record in queue.interrupted(1) {
        queue.apply(record).expect("what is being carried out can be cut short");
    }
    assert!(queue.interrupted(2).is_empty());
    // Told or not, nothing panics.
    drop((queue.answers(), queue.due(u64::MAX), queue.next_due()));
});
