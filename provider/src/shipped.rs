//! The descriptions that come with this version. One of the same name in the configuration
//! directory takes the place of a shipped one.

/// Names and texts.
pub const ALL: &[(&str, &str)] = &[
    ("bria", include_str!("shipped/bria.toml")),
    ("fal", include_str!("shipped/fal.toml")),
    ("gemini", include_str!("shipped/gemini.toml")),
    ("generic", include_str!("shipped/generic.toml")),
    ("kling", include_str!("shipped/kling.toml")),
    ("leonardo", include_str!("shipped/leonardo.toml")),
    ("openai", include_str!("shipped/openai.toml")),
    ("replicate", include_str!("shipped/replicate.toml")),
    ("runway", include_str!("shipped/runway.toml")),
    ("seedance", include_str!("shipped/seedance.toml")),
    ("veo", include_str!("shipped/veo.toml")),
];

#[cfg(test)]
mod tests {
    use crate::load::load;

    #[test]
    fn every_shipped_description_is_accepted() {
        for (name, text) in super::ALL {
            let provider = load(&format!("{name}.toml"), name, text);
            let provider = provider.unwrap_or_else(|problems| panic!("{}", problems[0]));
            assert!(!provider.about.is_empty(), "{name} says what it is");
        }
    }
}
