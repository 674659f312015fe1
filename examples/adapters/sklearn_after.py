"""A classifier of scikit-learn over scaled inputs. Run with python -m from the checkout."""

from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from examples.adapters import sites
from fl.adapters import fit_scaler, from_sklearn
from secagg import SecAggPlus

scaler = fit_scaler(StandardScaler(), sites.SITES, bounds=sites.BOUNDS, privacy=[SecAggPlus()])
model = SGDClassifier(loss="log_loss", random_state=0)
clients = {name: (scaler.transform(x), y) for name, (x, y) in sites.SITES.items()}
model = from_sklearn(model, clients, classes=[0, 1], privacy=[SecAggPlus()]).fit(rounds=5).model.estimator()
x, y = sites.TEST
print(f"accuracy {model.score(scaler.transform(x), y):.3f}")
