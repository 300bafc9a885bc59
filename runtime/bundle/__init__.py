"""The bundle, as everything after export reads it: manifest, engines, calibrations, and publication."""
