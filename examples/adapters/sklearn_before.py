"""A classifier of scikit-learn over scaled inputs. Run with python -m from the checkout."""

from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from examples.adapters import sites

scaler = StandardScaler().fit(sites.TRAIN[0])
model = SGDClassifier(loss="log_loss", random_state=0)
for _ in range(5):
    model.partial_fit(scaler.transform(sites.TRAIN[0]), sites.TRAIN[1], classes=[0, 1])
x, y = sites.TEST
print(f"accuracy {model.score(scaler.transform(x), y):.3f}")
