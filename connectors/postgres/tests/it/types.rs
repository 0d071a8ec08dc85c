//! One row of every type: the snapshot and the tail must give the same values (R11).
