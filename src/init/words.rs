//! Names as words: how alike a column's name and a field's are.

/// Words that mean the same in vendors' tables and CRMs' models, with how surely. The first word of each group stands for
/// the others.
const GROUPS: &[(&str, &[(&str, f64)])] = &[
    // Things.
    (
        "account",
        &[
            ("customer", 0.9),
            ("client", 0.9),
            ("company", 0.9),
            ("organization", 0.9),
            ("organisation", 0.9),
            ("firm", 0.9),
            ("supplier", 0.85),
            ("vendor", 0.85),
            ("partner", 0.8),
            ("store", 0.5),
        ],
    ),
    ("contact", &[("person", 0.85), ("customer", 0.6), ("actor", 0.3)]),
    ("employee", &[("staff", 0.95), ("worker", 0.9), ("user", 0.5), ("rep", 0.6), ("salesperson", 0.8)]),
    ("product", &[("article", 0.9), ("item", 0.8), ("good", 0.8), ("film", 0.75), ("track", 0.7), ("material", 0.6)]),
    ("category", &[("genre", 0.85), ("group", 0.6)]),
    ("order", &[("sale", 0.75), ("purchase", 0.7), ("invoice", 0.7), ("rental", 0.65)]),
    ("line", &[("detail", 0.9), ("position", 0.85), ("row", 0.6)]),
    ("shipper", &[("carrier", 0.9), ("ship", 0.5)]),
    ("territory", &[("district", 0.7), ("area", 0.7)]),
    // Properties.
    ("phone", &[("telephone", 1.0), ("tel", 1.0), ("mobile", 0.8), ("cell", 0.8)]),
    ("email", &[("mail", 0.9)]),
    ("street", &[("address", 0.85), ("address1", 0.9)]),
    ("postal", &[("zip", 1.0), ("post", 0.9), ("plz", 1.0)]),
    ("region", &[("state", 0.85), ("province", 0.85), ("district", 0.8)]),
    ("city", &[("town", 0.95)]),
    ("website", &[("homepage", 0.95), ("url", 0.85), ("web", 0.85)]),
    ("title", &[("position", 0.7), ("job", 0.7)]),
    ("courtesy", &[("salutation", 0.9)]),
    ("birth", &[("birthday", 1.0), ("dob", 1.0), ("birthdate", 1.0)]),
    ("hire", &[("employed", 0.8)]),
    ("note", &[("remark", 0.95), ("comment", 0.9), ("memo", 0.8)]),
    ("picture", &[("photo", 0.85), ("image", 0.9)]),
    ("price", &[("cost", 0.7), ("rate", 0.5)]),
    ("amount", &[("total", 0.7), ("sum", 0.8)]),
    ("quantity", &[("qty", 1.0), ("count", 0.6)]),
    ("name", &[("title", 0.65), ("label", 0.7)]),
    ("sku", &[("code", 0.5), ("number", 0.5)]),
    ("parent", &[("superior", 0.7)]),
    ("manager", &[("boss", 0.9), ("supervisor", 0.9), ("report", 0.8)]),
    ("updated", &[("update", 1.0), ("modified", 0.9), ("changed", 0.8)]),
    ("freight", &[("shipping", 0.6)]),
];

/// Words that say nothing about what is meant.
const NOISE: &[&str] = &["the", "of", "to", "a", "an", "is", "tbl", "tab", "fk", "pk", "code", "on", "at", "date", "s"];

/// A name's words: at changes of case, underscores and digits; lower-case, singular, without endings of verbs.
pub fn words(name: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    let chars: Vec<char> = name.chars().collect();
    for (at, c) in chars.iter().copied().enumerate() {
        let starts = c.is_uppercase()
            && (before.is_lowercase()
                || before.is_ascii_digit()
                || chars.get(at + 1).is_some_and(|n| n.is_lowercase()));
        if (!c.is_alphanumeric() || starts) && !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
        before = c;
    }
    if !word.is_empty() {
        out.push(word);
    }
    // `e-mail`, `e_mail`.
    if let Some(at) = out.windows(2).position(|w| w[0] == "e" && w[1] == "mail") {
        out.remove(at);
    }
    let run_together = [
        ("postcode", "postal"),
        ("postalcode", "postal"),
        ("zipcode", "zip"),
        ("firstname", "first name"),
        ("lastname", "last name"),
        ("fullname", "full name"),
    ];
    out.iter()
        .flat_map(|w| {
            let known = run_together.iter().find(|(from, _)| from == w).map_or(w.as_str(), |(_, to)| to);
            known.split(' ').map(stem).collect::<Vec<_>>()
        })
        .collect()
}

fn stem(word: &str) -> String {
    let keep = ["status", "address", "sales", "business", "gross", "courtesy", "discount", "unit"];
    if keep.contains(&word) {
        return word.trim_end_matches(if word == "sales" { "s" } else { "\0" }).into();
    }
    match word {
        "shipped" => return "ship".into(),
        "ordered" => return "order".into(),
        "hired" => return "hire".into(),
        "birthday" | "birthdate" => return "birth".into(),
        "people" => return "person".into(),
        _ => {}
    }
    if let Some(start) = word.strip_suffix("ies").filter(|s| s.len() > 2) {
        return format!("{start}y");
    }
    match word.strip_suffix('s') {
        Some(start) if start.len() > 2 && !start.ends_with('s') && !start.ends_with('u') => start.into(),
        _ => word.into(),
    }
}

/// How alike two words are: 1 the same, 0 nothing in common.
fn word_alike(a: &str, b: &str) -> f64 {
    if a == b {
        return 1.0;
    }
    let weight = |group: &(&str, &[(&str, f64)]), word: &str| {
        if group.0 == word { Some(1.0) } else { group.1.iter().find(|(w, _)| *w == word).map(|(_, weight)| *weight) }
    };
    GROUPS.iter().filter_map(|group| Some(weight(group, a)?.min(weight(group, b)?))).fold(0.0, f64::max)
}

/// How alike two lists of words are, from 0 to 1: each word finds its best partner; what finds none counts against it.
/// Words that say nothing count only where they are all there is.
pub fn alike(a: &[String], b: &[String]) -> f64 {
    let loud = |words: &[String]| -> Vec<String> {
        let loud: Vec<String> = words.iter().filter(|w| !NOISE.contains(&w.as_str())).cloned().collect();
        if loud.is_empty() { words.to_vec() } else { loud }
    };
    let (a, b) = (loud(a), loud(b));
    if a.is_empty() || b.is_empty() {
        return 0.0;
    }
    let best = |from: &[String], to: &[String]| -> f64 {
        from.iter().map(|w| to.iter().map(|v| word_alike(w, v)).fold(0.0, f64::max)).sum()
    };
    (best(&a, &b) + best(&b, &a)) / (a.len() + b.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(a: &str, b: &str) -> f64 {
        alike(&words(a), &words(b))
    }

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(words("CompanyName"), ["company", "name"]);
        assert_eq!(words("customer_id"), ["customer", "id"]);
        assert_eq!(words("Order Details"), ["order", "detail"]);
        assert_eq!(words("HTTPServer2URL"), ["http", "server2", "url"]);
        assert_eq!(words("categories"), ["category"]);
        assert_eq!(words("E_Mail"), ["mail"]);
    }

    #[test]
    fn what_means_the_same_is_found_and_what_does_not_is_not() {
        for (a, b) in [
            ("PostalCode", "postal_code"),
            ("zip", "postal_code"),
            ("Telephone", "phone"),
            ("HireDate", "hired_on"),
            ("ShippedDate", "shipped_on"),
            ("Order Details", "order_line"),
            ("Customers", "account"),
            ("QuantityPerUnit", "quantity_per_unit"),
        ] {
            assert!(like(a, b) > 0.8, "{a} {b}: {}", like(a, b));
        }
        for (a, b) in [
            ("CreditLimit", "country"),
            ("UnitsInStock", "unit_price"),
            ("RequiredDate", "shipped_on"),
            ("Fax", "phone"),
        ] {
            assert!(like(a, b) < 0.6, "{a} {b}: {}", like(a, b));
        }
    }
}
