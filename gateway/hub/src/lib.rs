//! The cloud half for operators who host their own, holdfast-hub
