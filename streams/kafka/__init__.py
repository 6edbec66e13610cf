"""Where Faust and aiokafka are made to hand over chunks and commit steps in transactions."""
