//! The steps of a plan as JSON: the form that run keys hash and stores keep. Writing is canonical (one text for each
//! plan: fields in order, defaults left out); reading refuses what [`Plan::new`] refuses, and unknown fields.

use serde::de::Error as _;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bridge, Execution, Modifier, Part, Plan, Step};
use crate::hex::hex;

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.steps().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plan, D::Error> {
        Plan::new(Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Step::Block(Execution { layer, part, modifiers }) => {
                let partial = *part != Part::Block;
                let fields = 1 + usize::from(partial) + usize::from(!modifiers.is_empty());
                let mut step = serializer.serialize_struct("Step", fields)?;
                step.serialize_field("layer", layer)?;
                if partial {
                    step.serialize_field("part", part)?;
                }
                if !modifiers.is_empty() {
                    step.serialize_field("modifiers", modifiers)?;
                }
                step.end()
            }
            Step::Group(branches) => {
                let mut step = serializer.serialize_struct("Step", 1)?;
                step.serialize_field("branches", branches)?;
                step.end()
            }
            Step::Bridge(Bridge { from, to, name, content }) => {
                let mut step = serializer.serialize_struct("Step", 3 + usize::from(content.is_some()))?;
                step.serialize_field("bridge", name)?;
                step.serialize_field("from", from)?;
                step.serialize_field("to", to)?;
                if let Some(content) = content {
                    step.serialize_field("content", &hex(content))?;
                }
                step.end()
            }
        }
    }
}

/// 64 hexadecimal digits, in lower case as they are written.
fn content(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let mut content = [0; 32];
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != content.len() {
        return None;
    }
    for (byte, [high, low]) in content.iter_mut().zip(pairs) {
        *byte = (16 * digit(*high)? + digit(*low)?) as u8;
    }
    Some(content)
}

/// The fields of any kind of step. (An untagged enum would report a misspelt field as "no variant matches".)
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "Step")]
struct Fields {
    layer: Option<usize>,
    part: Option<Part>,
    modifiers: Option<Vec<Modifier>>,
    branches: Option<Vec<Vec<Step>>>,
    bridge: Option<String>,
    from: Option<usize>,
    to: Option<usize>,
    content: Option<String>,
}

impl Fields {
    /// Those of a bridge; none where there are others, too.
    fn bridge<E: serde::de::Error>(self) -> Result<Step, E> {
        let Fields { layer: None, part: None, modifiers: None, branches: None, bridge: Some(name), .. } = self else {
            return Err(E::custom("a step is one of `layer` (with `part`, `modifiers`), `branches` and `bridge`"));
        };
        let from = self.from.ok_or_else(|| E::missing_field("from"))?;
        let to = self.to.ok_or_else(|| E::missing_field("to"))?;
        let content = match self.content {
            None => None,
            Some(text) => {
                Some(content(&text).ok_or_else(|| E::custom("`content` is a SHA-256: 64 hexadecimal digits"))?)
            }
        };
        Ok(Step::Bridge(Bridge { from, to, name, content }))
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        let fields = Fields::deserialize(deserializer)?;
        if fields.bridge.is_some() {
            return fields.bridge();
        }
        if fields.from.is_some() || fields.to.is_some() || fields.content.is_some() {
            return Err(D::Error::custom("`from`, `to` and `content` are of a `bridge`"));
        }
        match fields {
            Fields { layer: Some(layer), part, modifiers, branches: None, .. } => Ok(Step::Block(Execution {
                layer,
                part: part.unwrap_or(Part::Block),
                modifiers: modifiers.unwrap_or_default(),
            })),
            Fields { layer: None, part: None, modifiers: None, branches: Some(branches), .. } => {
                Ok(Step::Group(branches))
            }
            Fields { layer: None, branches: None, .. } => Err(D::Error::missing_field("layer")),
            _ => Err(D::Error::custom("a step has either `layer` (with `part`, `modifiers`) or `branches`, not both")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    #[test]
    fn canonical_text() {
        for (text, json) in [
            ("none", "[]"),
            ("4", r#"[{"layer":4}]"#),
            ("4a,4m", r#"[{"layer":4,"part":"attention"},{"layer":4,"part":"mlp"}]"#),
            (
                "7[noise 0.1 pre @2..5,patch q h1 from clean,knockout h3 keys 2 @9]",
                r#"[{"layer":7,"modifiers":[{"verb":"noise","amount":0.1,"seed":0,"site":"pre","positions":[2,5]},{"verb":"patch","site":"q","units":[1],"from":"clean"},{"verb":"knockout","site":"pattern","units":[3],"keys":[2,3],"positions":[9,10]}]}]"#,
            ),
            ("7[zero h5 h3]", r#"[{"layer":7,"modifiers":[{"verb":"zero","site":"z","units":[3,5]}]}]"#),
            ("7a[zero h0]", r#"[{"layer":7,"part":"attention","modifiers":[{"verb":"zero","site":"z","units":[0]}]}]"#),
            ("(4,5|none)", r#"[{"branches":[[{"layer":4},{"layer":5}],[]]}]"#),
            ("4,bridge(5:12,a.b-1)", r#"[{"layer":4},{"bridge":"a.b-1","from":5,"to":12}]"#),
        ] {
            let plan = plan(text);
            assert_eq!(serde_json::to_string(&plan).unwrap(), json);
            assert_eq!(serde_json::from_str::<Plan>(json).unwrap(), plan);
        }
        // Fields that say the default, in any order.
        let spelt_out = r#"[{"modifiers":[],"part":"block","layer":4}]"#;
        assert_eq!(serde_json::from_str::<Plan>(spelt_out).unwrap(), plan("4"));
    }

    #[test]
    fn refused() {
        let deep = format!("{}[]{}", r#"[{"branches":[[],"#.repeat(40), "]}]".repeat(40));
        let deeper = r#"[{"branches":["#.repeat(100_000);
        let zero = |site: &str, units: &str| {
            format!(r#"[{{"layer":1,"modifiers":[{{"verb":"zero","site":"{site}","units":{units}}}]}}]"#)
        };
        let long = format!("[{}]", vec![r#"{"layer":0}"#; 65_537].join(","));
        for (json, wanted) in [
            ("{}", "expected a sequence"),
            ("[{}]", "missing field `layer`"),
            (r#"[{"part":"mlp"}]"#, "missing field `layer`"),
            (r#"[{"layer":-1}]"#, "invalid value: integer `-1`"),
            (r#"[{"layer":4.0}]"#, "floating point"),
            (r#"[{"layer":18446744073709551616}]"#, "invalid"),
            (r#"[{"layer":4,"heads":[3]}]"#, "unknown field `heads`"),
            (r#"[{"layer":4,"layer":5}]"#, "duplicate field `layer`"),
            (r#"[{"layer":4,"part":"mpl"}]"#, "unknown variant `mpl`"),
            (r#"[{"layer":4,"branches":[[],[]]}]"#, "not both"),
            (r#"[{"branches":[[],[]],"modifiers":[]}]"#, "not both"),
            (r#"[{"branches":[[{"layer":1}]]}]"#, "steps.0: a group of 1 branches: a group has two or more"),
            (r#"[{"layer":1},{"branches":[]}]"#, "steps.1: a group of 0 branches"),
            (&zero("z", "[3,3]"), "steps.0: `zero h3 h3`: units are ascending, each once"),
            (&zero("mid", "[3]"), "steps.0: `zero mid ?3`: the site has neither heads nor neurons"),
            (&zero("mlp", "[]").replace("1,", r#"1,"part":"attention","#), "steps.0: mlp is not in 1a"),
            (&zero("z", "[3]},{\"verb\":\"zero\",\"site\":\"z\",\"units\":[5]"), "not in the order of their sites"),
            (&zero("up", "[3]"), "unknown variant `up`"),
            (r#"[{"layer":1,"modifiers":[{"verb":"zero","site":"z","seed":1}]}]"#, "zero has neither amount, seed"),
            (r#"[{"layer":1,"modifiers":[{"verb":"mean","site":"z"}]}]"#, "mean and patch have from"),
            (r#"[{"layer":1,"modifiers":[{"verb":"zero","site":"z","positions":[2,2]}]}]"#, "no such positions"),
            (r#"[{"layer":1,"modifiers":[{"verb":"mean","site":"z","from":"a b"}]}]"#, "names are letters"),
            (r#"[{"bridge":"fit","from":6}]"#, "missing field `to`"),
            (r#"[{"bridge":"fit","to":6}]"#, "missing field `from`"),
            (r#"[{"from":6,"to":7}]"#, "are of a `bridge`"),
            (r#"[{"layer":6,"to":7}]"#, "are of a `bridge`"),
            (r#"[{"bridge":"fit","from":6,"to":7,"layer":6}]"#, "a step is one of"),
            (r#"[{"bridge":"fit","from":6,"to":7,"modifiers":[]}]"#, "a step is one of"),
            (r#"[{"layer":1},{"bridge":"fit","from":7,"to":6}]"#, "steps.1: bridge 7:6 runs backwards"),
            (r#"[{"bridge":"a b","from":6,"to":7}]"#, "names are letters"),
            (r#"[{"bridge":"a","from":6,"to":7,"content":"0"}]"#, "64 hexadecimal digits"),
            (
                &format!(r#"[{{"bridge":"a","from":6,"to":7,"content":"{}"}}]"#, "AB".repeat(32)),
                "64 hexadecimal digits",
            ),
            (&deep, "groups nested more than 32 deep"),
            (&deeper, "recursion limit"),
            (&long, "65537 block executions: a plan holds at most 65536"),
        ] {
            let error = serde_json::from_str::<Plan>(json).unwrap_err().to_string();
            assert!(error.contains(wanted), "{}: {error}", &json[..json.len().min(80)]);
        }
    }

    #[test]
    fn the_deepest_plan_can_be_read_back() {
        let text = format!("{}5{}", "(".repeat(32), "|4)".repeat(32));
        let plan = plan(&text);
        assert_eq!(plan.to_string(), text);
        // Inside the objects of a store row or a protocol message, too.
        let json = format!("{}{}{}", "[".repeat(20), serde_json::to_string(&plan).unwrap(), "]".repeat(20));
        let row: serde_json::Value = serde_json::from_str(&json).unwrap();
        let inner = (0..20).fold(&row, |row, _| &row[0]);
        assert_eq!(serde_json::from_value::<Plan>(inner.clone()).unwrap(), plan);
    }
}
