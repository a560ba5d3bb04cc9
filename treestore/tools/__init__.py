"""The tools of an agent that decides cases by a policy, on top of a TreeStore."""
