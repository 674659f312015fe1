"""Audit: properties that any SecureSum must pass, and the adapters for foreign ones. Needs the extra `audit`.

The only place that imports hypothesis. What does not belong here: any protocol; a protocol may bring `audit_hooks`.
"""

from protocols.audit.blackbox import BlackBox
from protocols.audit.other_results import ProtocolBox
from protocols.audit.prop import Finding, Property
from protocols.audit.registry import PROPERTIES, find
from protocols.audit.report import Checked, Report, Status
from protocols.audit.runner import audit, planned
from protocols.audit.subject import Subject, WhiteBox, subject_of
from protocols.audit.testcase import SecureSumAudit
from protocols.audit.wire import Wire
from protocols.audit_hooks import Forgery, Hooks

__all__ = [
    "PROPERTIES",
    "BlackBox",
    "Checked",
    "Finding",
    "Forgery",
    "Hooks",
    "Property",
    "ProtocolBox",
    "Report",
    "SecureSumAudit",
    "Status",
    "Subject",
    "WhiteBox",
    "Wire",
    "audit",
    "find",
    "planned",
    "subject_of",
]
