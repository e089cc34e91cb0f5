//! Opening models: the embedded one, directories, shards, layouts; tokenizer parity with the `tokenizers` crate.

use lesion::model::Model;

#[test]
fn the_embedded_model_opens() {
    let model = Model::mini().unwrap();
    assert_eq!(model.config().n_layer, 12);
    assert_eq!(model.warnings(), [""; 0]);
    let ids = model.tokenizer().unwrap().encode("The capital of Spain is").unwrap();
    assert_eq!(ids, [275, 325, 303, 1216, 292]);
    assert_eq!(model.tokenizer().unwrap().decode(&ids).unwrap(), "The capital of Spain is");
}
