//! The words that a condition may call.

/// Functions with the fewest and the most arguments they take. None of them raises, whatever a row holds: an error
/// would tell of rows that the caller does not see.
pub const FUNCTIONS: [(&str, usize, usize); 29] = [
    ("coalesce", 2, 100),
    ("ifnull", 2, 2),
    ("nullif", 2, 2),
    ("iif", 2, 3),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("length", 1, 1),
    ("trim", 1, 2),
    ("ltrim", 1, 2),
    ("rtrim", 1, 2),
    ("substr", 2, 3),
    ("substring", 2, 3),
    ("instr", 2, 2),
    ("round", 1, 2),
    ("sign", 1, 1),
    ("min", 2, 100),
    ("max", 2, 100),
    ("typeof", 1, 1),
    ("date", 0, 10),
    ("time", 0, 10),
    ("datetime", 0, 10),
    ("julianday", 0, 10),
    ("unixepoch", 0, 10),
    ("strftime", 1, 10),
    ("json_valid", 1, 1),
    ("json_type", 1, 1),
    ("json_array_length", 1, 1),
    ("unlikely", 1, 1),
    ("likely", 1, 1),
];

/// These stand alone as the column of a sub-select.
pub const AGGREGATES: [&str; 3] = ["count", "min", "max"];

pub const CLOCKS: [&str; 3] = ["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME"];
