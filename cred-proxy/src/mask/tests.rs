use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use proptest::{collection, sample};

const SECRET: &str = "s3cr3t/T0ken+\"9<z";

fn forms(secret: &str) -> Arc<Forms> {
    Arc::new(Forms::new(&[Secret::new(secret.into())]).unwrap())
}

/// `text` cut at `cuts` and sent through a mask, as one.
fn through(forms: &Arc<Forms>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut mask = Mask::new(forms.clone());
    let mut out = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        out.extend_from_slice(&mask.push(Bytes::copy_from_slice(&text[pair[0]..pair[1]])));
        assert!(mask.held_bytes() < forms.longest.max(1));
    }
    out.extend_from_slice(&mask.finish());
    out
}

fn encodings(secret: &str) -> Vec<(&'static str, String)> {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    vec![
        ("plain", secret.to_owned()),
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("percent", "s3cr3t%2FT0ken%2B%229%3Cz".to_owned()),
        ("percent, lower case", "s3cr3t%2fT0ken%2b%229%3cz".to_owned()),
        ("percent, slash kept", "s3cr3t/T0ken%2B%229%3Cz".to_owned()),
        ("json", "s3cr3t/T0ken+\\\"9<z".to_owned()),
        ("json, slash escaped", "s3cr3t\\/T0ken+\\\"9<z".to_owned()),
        ("json, safe in html", "s3cr3t/T0ken+\\\"9\\u003cz".to_owned()),
    ]
}

#[test]
fn each_form_is_masked_at_its_length_wherever_it_is_cut() {
    let forms = forms(SECRET);
    for (name, encoded) in encodings(SECRET) {
        let text = format!("before {encoded} after");
        for cut in 0..text.len() {
            let masked = through(&forms, text.as_bytes(), &[cut]);
            let wanted = format!("before {} after", "*".repeat(encoded.len()));
            assert_eq!(String::from_utf8(masked).unwrap(), wanted, "{name} cut at {cut}");
        }
    }
}

#[test]
fn base64_is_masked_at_every_offset() {
    let forms = forms(SECRET);
    for before in ["", "u", "us", "use", "user:", "x:y:"] {
        for after in ["", "a", "ab", "abc"] {
            for encoded in [
                STANDARD.encode(format!("{before}{SECRET}{after}")),
                URL_SAFE.encode(format!("{before}{SECRET}{after}")),
            ] {
                let masked = String::from_utf8(forms.masked(encoded.as_bytes())).unwrap();
                assert_eq!(masked.len(), encoded.len());
                let stars = masked.bytes().filter(|byte| *byte == b'*').count();
                // At most one character at each edge also carries bits of a neighbour and stays.
                assert!(stars + 2 >= SECRET.len() * 8 / 6, "{before} {after}: {masked}");
            }
        }
    }
}

#[test]
fn nothing_but_a_beginning_is_held_back() {
    let forms = forms(SECRET);
    let mut mask = Mask::new(forms);
    assert_eq!(mask.push(Bytes::from_static(b"data: {\"a\":1}\n\n")), "data: {\"a\":1}\n\n");
    assert_eq!(mask.push(Bytes::from_static(b"data: s3cr3t/T")), "data: ");
    assert_eq!(mask.held_bytes(), 8);
    assert_eq!(mask.push(Bytes::from_static(b"urn\n\n")), "s3cr3t/Turn\n\n");
    assert_eq!(mask.held_bytes(), 0);
    assert_eq!(mask.push(Bytes::from_static(b"end s3")), "end ");
    assert_eq!(mask.finish(), "s3");
}

#[test]
fn a_short_secret_is_masked_in_its_plain_form_alone() {
    let forms = forms("hunter2");
    assert_eq!(forms.masked(b"a hunter2 b"), b"a ******* b");
    let encoded = STANDARD.encode("hunter2");
    assert_eq!(forms.masked(encoded.as_bytes()), encoded.as_bytes());
    let longer = Forms::new(&[Secret::new("hunter22".into())]).unwrap();
    assert_ne!(longer.masked(STANDARD.encode("hunter22").as_bytes()), STANDARD.encode("hunter22").as_bytes());
}

#[test]
fn the_fill_is_no_part_of_the_secret() {
    assert_eq!(forms("pass*word").masked(b"<pass*word>"), b"<#########>");
    assert!(matches!(Forms::new(&[Secret::new("*#_~-.xX".into())]), Err(MaskError::NoFill)));
}

#[test]
fn overlapping_forms_are_masked_whole() {
    let forms = forms("abcabcab");
    for cut in 0..20 {
        assert_eq!(through(&forms, b"-abcabcabcabcab-", &[cut, cut + 3]), b"-**************-", "cut at {cut}");
    }
}

#[test]
fn what_stands_before_a_form_inside_the_beginning_of_another_is_not_masked() {
    let (whole, part) = ("my-hunter22:hunter22", "hunter22");
    let forms = Arc::new(Forms::new(&[Secret::new(whole.into()), Secret::new(part.into())]).unwrap());
    for (text, wanted) in [
        ("<my-hunter22:>", "<my-********:>"),
        ("<my-hunter22:hunter22>", "<********************>"),
        ("<my-hunter22my-hunter22:>", "<my-********my-********:>"),
    ] {
        for cut in 0..text.len() {
            for other in 0..text.len() {
                let masked = through(&forms, text.as_bytes(), &[cut, other]);
                assert_eq!(String::from_utf8(masked).unwrap(), wanted, "cut at {cut} and {other}");
            }
        }
    }
}

#[test]
fn debug_shows_nothing() {
    assert_eq!(format!("{:?}", forms(SECRET)), "Forms([redacted])");
}

/// What a search would do that knows nothing but the forms: every byte of every occurrence is masked.
fn naively_masked(forms: &Forms, text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    for form in &forms.forms {
        for at in 0..(text.len() + 1).saturating_sub(form.len()) {
            if text[at..].starts_with(form) {
                out[at..at + form.len()].fill(forms.fill);
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_form_passes_however_it_is_cut(
        parts in collection::vec((sample::select(vec!["", "a", "s3cr3", "ab", "aab", "\n\n", "%2F"]), 0..9_usize), 1..8),
        cuts in collection::vec(any::<usize>(), 0..12),
    ) {
        let forms = forms(SECRET);
        let encodings = encodings(SECRET);
        let text: String = parts.iter().map(|(noise, which)| format!("{noise}{}", encodings[*which].1)).collect();
        let masked = through(&forms, text.as_bytes(), &cuts);
        prop_assert_eq!(masked.len(), text.len());
        prop_assert!(!forms.is_in(&masked));
        prop_assert_eq!(masked, forms.masked(text.as_bytes()));
    }

    #[test]
    fn self_similar_secrets_do_not_pass(
        secret in "[ab]{8,10}",
        text in "[ab]{0,60}",
        cuts in collection::vec(any::<usize>(), 0..12),
    ) {
        let forms = forms(&secret);
        let masked = through(&forms, text.as_bytes(), &cuts);
        prop_assert!(!forms.is_in(&masked));
        prop_assert_eq!(masked, forms.masked(text.as_bytes()));
    }

    #[test]
    fn other_text_is_unchanged(text in "[ -~\n]{0,200}", cuts in collection::vec(any::<usize>(), 0..12)) {
        let forms = forms(SECRET);
        if !forms.is_in(text.as_bytes()) {
            prop_assert_eq!(through(&forms, text.as_bytes(), &cuts), text.into_bytes());
        }
    }

    #[test]
    fn masking_is_what_a_naive_search_of_all_forms_would_do(
        secret in sample::select(vec![
            "ab", "aaaaaaa", "hunter22", "user:example-password", SECRET, "0aZ9-4fJk2LmQ8sVx1WyB7cDe5RtG6hNpU3iOa",
        ]),
        // Noise; or of a form a part, which is all of it now and then.
        parts in collection::vec((any::<bool>(), "[a0%\n]{0,40}", any::<usize>(), any::<usize>(), any::<usize>()), 0..12),
        cuts in collection::vec(any::<usize>(), 0..12),
    ) {
        let forms = forms(secret);
        let mut text = Vec::new();
        for (is_noise, noise, which, from, to) in &parts {
            if *is_noise {
                text.extend_from_slice(noise.as_bytes());
                continue;
            }
            let form = &forms.forms[which % forms.forms.len()];
            // Each end is cut in every second case.
            let from = if from % 2 == 0 { 0 } else { from % form.len() };
            let to = if to % 2 == 0 { form.len() } else { from + to % (form.len() - from + 1) };
            text.extend_from_slice(&form[from..to]);
        }
        let wanted = naively_masked(&forms, &text);
        prop_assert_eq!(forms.is_in(&text), wanted != text);
        prop_assert_eq!(&forms.masked(&text), &wanted);
        prop_assert_eq!(&through(&forms, &text, &cuts), &wanted);
    }
}
